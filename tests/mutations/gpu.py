"""What a review for GPUs found, item by item, undone: the errors that this harness had before it met one."""

from __future__ import annotations

from tests.mutations import Mutation

BENCH, JOBS, RUN, STEPS = "harness/bench/", "harness/jobs/", "harness/run/", "harness/training/"
STATE, COMPILATION, METER, TRAINER = (STEPS + f"{name}.py" for name in ("state", "compilation", "meter", "trainer"))
ARITHMETIC, DEVICE, INFERENCE = (STEPS + f"{name}.py" for name in ("arithmetic", "device", "inference"))
RANDAUGMENT, GPUS = STEPS + "data/randaugment.py", "harness/runtime/gpus.py"
MEMORY, VIEWS, ERRORS = JOBS + "memory.py", RUN + "views.py", RUN + "device_errors.py"
LATENT_BE, RANK_ONE = "methods/latent_be.py", "methods/rank_one.py"

# Beginnings of the names of tests.
COMPILED, MEASURED = "training/test_compilation.py::test_", "bench/test_measurement.py::test_"
VIEWED, METERED = "run/test_views.py::test_", "training/test_meter.py::test_"
CHILDREN = "jobs/test_children.py::test_"
CHANGED, ON_GPU = "training/data/test_changes.py::test_", "training/test_gpu_steps.py::test_"
STARVED = (COMPILED + "one_run_does_not_starve_the_next",)
RECORDED = (COMPILED + "a_record_says_what_was_compiled_and_evaluation_compiles_nothing",)
MARKED = (COMPILED + "what_looked_at_the_inputs_is_done_with_before_the_loss",)
PEAK = (METERED + "peak_memory_is_that_of_steps",)
# Files of quick ones.
SETTINGS, WHICH, NAMED = ("training/test_arithmetic.py",), ("training/test_device.py",), ("runtime/test_gpus.py",)
SLOTS, TRACED, SAID = ("jobs/test_slots.py",), ("bench/test_trace.py",), ("run/test_device_errors.py",)
LAUNCHES = ("training/test_launches.py::test_launches_are_what_they_were[preresnet20 combined bfloat16]",)

MUTATIONS = [
    # 1: a checkpoint goes on on the other kind of device
    Mutation("GPU 1: momentum keeps its strides", STATE,
             "like = torch.empty_like(parameter) if value.shape == parameter.shape else value", "like = value",
             ("training/test_state.py",)),
    Mutation("GPU 1: the rate stays on its device", STATE, 'group["lr"] = rate', "pass",
             (ON_GPU + "no_step_waits_and_its_numbers_are_the_cpus[combined, ema, resumed]",)),
    # 2: torch.compile gives up in silence
    Mutation("GPU 2: the compiler is never reset", COMPILATION, "torch.compiler.reset()", "pass", STARVED),
    Mutation("GPU 2: few graphs, then none", COMPILATION, "recompile_limit = GRAPHS", "recompile_limit = 2", STARVED),
    Mutation("GPU 2: given up in silence", COMPILATION, "fail_on_recompile_limit_hit = True",
             "fail_on_recompile_limit_hit = False", (COMPILED + "too_many_graphs_are_an_error",)),
    Mutation("GPU 2: a graph for every member", LATENT_BE,
             "torch.arange(self.selection.members, device=device).split(1)", "range(self.selection.members)", STARVED),
    Mutation("GPU 2: nobody says what is not compiled", COMPILATION, "for reason, count in reasons.items()",
             "for reason, count in ()", (COMPILED + "what_is_not_compiled_is_said",)),
    Mutation("GPU 2: no record says what is compiled", RUN + "learner.py",
             'compilation.describe(self.config["train"]["compile"])', "None", RECORDED),
    # 3: memory and speed are the training's
    Mutation("GPU 3: speed of the first step", METER, "if not self.warm and not last:", "if False:",
             (METERED + "speed_is_not_that_of_the_first_step",)),
    Mutation("GPU 3: peak of the first step", METER, "torch.cuda.reset_peak_memory_stats(self.device)", "pass", PEAK),
    Mutation("GPU 3: peak of the evaluation", RUN + "outcome.py", "training.peak_bytes if on_gpu",
             "torch.cuda.max_memory_allocated(device) if on_gpu", PEAK),
    Mutation("GPU 3: what graphs keep does not count", METER, "memory_allocated(self.device) + kept",
             "memory_allocated(self.device)", (METERED + "what_graphs_keep_between_replays_is_memory_of_steps",)),
    # 4: the benchmark
    Mutation("GPU 4: device time counted twice", BENCH + "trace.py", "if event.device_type == DeviceType.CUDA and",
             "if", TRACED),
    Mutation("GPU 4: the profiler's waits count", BENCH + "trace.py",
             " and step.time_range.start <= event.time_range.start <= step.time_range.end", "", TRACED),
    Mutation("GPU 4: the peak never in TF32", BENCH + "measurement.py", "with arithmetic.of_steps(precision):",
             'with arithmetic.of_steps("float32"):', (MEASURED + "peak_and_steps_compute_alike",)),
    Mutation("GPU 4: one round warms up", BENCH + "measurement.py", "for _ in range(MOST):", "for _ in range(1):",
             (MEASURED + "warming_up_takes_every_pair_until_nothing_is_compiled_any_more",)),
    Mutation("GPU 4: the naive form copies numbers", BENCH + "naive.py",
             "(torch.arange(len(logits), device=logits.device) == i).float()",
             "torch.tensor([float(m == i) for m in range(len(logits))], device=logits.device)",
             (MEASURED + "naive_inputs_send_no_number_to_the_device",)),
    # 5: what repeats itself, and what is known of it
    Mutation("GPU 5: settings of steps stay", ARITHMETIC, "finally:\n        set_flags(tf32=False, by_timing=False)",
             "finally:\n        pass", SETTINGS),
    Mutation("GPU 5: deterministic by timing", ARITHMETIC, "not torch.are_deterministic_algorithms_enabled())", "True)",
             SETTINGS),
    Mutation("GPU 5: deterministic in name", ARITHMETIC, "use_deterministic_algorithms(deterministic)",
             "use_deterministic_algorithms(False)", SETTINGS),
    Mutation("GPU 5: TF32 in convolutions alone", ARITHMETIC, "matmul.allow_tf32 = tf32", "matmul.allow_tf32 = False",
             SETTINGS),
    Mutation("GPU 5: no version of cuDNN", ARITHMETIC, "torch.backends.cudnn.version()", "None", SETTINGS),
    Mutation("GPU 5: no version of the driver", ARITHMETIC, '"driver": read_driver()', '"driver": None', SETTINGS),
    Mutation("GPU 5: views of any device", VIEWS, "self.augmentation.flip, self.device]", "self.augmentation.flip]",
             (VIEWED + "another_kind_of_device_has_answers_of_its_own",)),
    Mutation("GPU 5: findings of any device", "harness/store/findings.py", "return [code, device, fingerprint,",
             "return [code, fingerprint,", ("evaluation/test_shift.py::test_findings_have_another_name_when_anything_changes",)),
    # 6: CUDA graphs
    Mutation("GPU 6: no mark after the inputs", TRAINER, "if count == 1:", "if False:", MARKED),
    Mutation("GPU 6: marks while gradients add up", TRAINER, "if count == 1:", "if True:", MARKED),
    Mutation("GPU 6: compiled for the evaluation", RUN + "run.py",
             'compilation.uncompiled(self.config["train"]["compile"])', "contextlib.nullcontext()", RECORDED),
    # 7: a look at a member has no gradient of weights
    Mutation("GPU 7: weights wait for gradients", LATENT_BE, "nn.Parameter(p.detach(), requires_grad=False)", "p",
             (COMPILED + "a_member_that_is_looked_at_wants_no_gradient_of_weights",)),
    # 8: which GPU
    Mutation("GPU 8: cuda:N in a child", JOBS + "job.py", 'config["device"].partition(":")[0]', 'config["device"]',
             (CHILDREN + "a_child_calls_the_gpu_that_it_sees_its_first",)),
    Mutation("GPU 8: cuda:N is any GPU in a pool", JOBS + "slots.py", "return [name]", "return found", SLOTS),
    Mutation("GPU 8: no current device", DEVICE, "torch.cuda.set_device(device)", "pass", WHICH),
    Mutation("GPU 8: auto is GPU 0", DEVICE, "freest() if local is None", "0 if local is None", WHICH),
    # 9: packs
    Mutation("GPU 9: a context takes nothing", MEMORY, "int(SLACK * max(known)) + CONTEXT", "max(known)", SLOTS),
    Mutation("GPU 9: host memory unchecked", MEMORY, "if there is not None and there <", "if False and there <", SLOTS),
    Mutation("GPU 9: -1 and NoDevFiles are GPUs", GPUS,
             "[*itertools.takewhile(KINDS.get(entries[0][:4], str.isdecimal), entries)]", "entries",
             NAMED),
    Mutation("GPU 9: only numbers are GPUs", GPUS, "KINDS.get(entries[0][:4], str.isdecimal)", "str.isdecimal", NAMED),
    Mutation("GPU 9: CUDA counts as nvidia-smi", GPUS, "or len({gpu.model for gpu in found}) == 1", "or True", NAMED),
    Mutation("GPU 9: a pack on the first GPU", JOBS + "slots.py", "names[k % len(names)]", "names[0]",
             (CHILDREN + "runs_of_a_pack_take_turns_on_the_gpus_of_the_job",)),
    Mutation("GPU 9: nothing is said of MPS", GPUS, "if not pipe.exists():", "if True:", NAMED),
    # 10: memory that does not do
    Mutation("GPU 10: views go on the device unchecked", VIEWS, "if size <= SHARE * free:", "if True:",
             (VIEWED + "answers_go_onto_the_device_where_they_fit",)),
    Mutation("GPU 10: views that did not fit", VIEWS, "except torch.cuda.OutOfMemoryError:", "except ZeroDivisionError:",
             (VIEWED + "a_device_that_is_full_after_all_leaves_them_on_the_host",)),
    Mutation("GPU 10: a copy for every batch of views", VIEWS, "keepdim=True)).half())", "keepdim=True)).half().cpu())",
             (VIEWED + "building_waits_once_a_piece",)),
    Mutation("GPU 10: out of memory as torch says it", ERRORS, "    said = str(error)\n", "    return error\n", SAID),
    Mutation("GPU 10: an error keeps the memory", ERRORS, "traceback.clear_frames(", "id(", SAID),
    Mutation("GPU 10: no smaller batches", INFERENCE, "if size == 1:", "if True:",
             (METERED + "evaluation_goes_on_in_smaller_batches",)),
    # 11: launches
    Mutation("GPU 11: a cast for every member", RANK_ONE, "if torch.is_autocast_enabled(kind):", "if False:", LAUNCHES),
    Mutation("GPU 11: teachers cast in every step", TRAINER, 'if self.recipe["precision"] == "bfloat16":\n                ',
             "if False:\n                ", LAUNCHES),
    Mutation("GPU 11: no step is captured", TRAINER, 'if possible and self.recipe["capture"]', "if False",
             (ON_GPU + "no_step_waits_and_its_numbers_are_the_cpus[supervised, captured]",)),
    Mutation("GPU 11: a known answer is asked for", "methods/perturbation.py", "teachers.answer(j, images)",
             "teachers.member(j)(images)", (VIEWED + "the_second_of_a_pair_is_looked_up",)),
    # 12: RandAugment
    Mutation("GPU 12: every image sampled by itself", RANDAUGMENT, "changed.append(self.warp(moved, matrix[:, :6]))",
             "changed += [self.warp(*one) for one in zip(moved.split(1), matrix[:, :6].split(1))]",
             (CHANGED + "a_round_is_few_launches",)),
    Mutation("GPU 12: its draws are waited for", RANDAUGMENT, "send(torch.stack((operations, positive)).byte(), device)",
             "torch.stack((operations, positive)).byte().to(device)",
             (CHANGED + "no_batch_waits_for_the_device",)),
    # 13: after and around the training
    Mutation("GPU 13: networks outlive their run", ERRORS, "garbage collector\n            gc.collect()",
             "garbage collector", SAID),
    Mutation("GPU 13: batch norms are read", INFERENCE, "norm.momentum = len(images) / seen", "norm.momentum = None",
             (ON_GPU + "nothing_waits_where_batch_norms_are_re_estimated",)),
    Mutation("GPU 13: batch norms wait for every order", INFERENCE, "send(rows, images.device)", "rows.to(images.device)",
             (ON_GPU + "nothing_waits_where_batch_norms_are_re_estimated",)),
    Mutation("GPU 13: corrupted anew for every student", "harness/evaluation/shift.py", "if self.kept is None", "if True",
             ("evaluation/test_shift.py::test_corrupted_images_are_computed_once_for_all_students",)),
    Mutation("GPU 13: diagnostics of 500 at a time", "harness/evaluation/diagnostics.py",
             "networks, images.split(batch_for(images))", "networks, images.split(PAIRED)",
             ("evaluation/test_diagnostics.py::test_batches_suit_the_size_of_the_images",)),
    Mutation("GPU 13: images lie there twice", STEPS + "data/dataset.py", "return known\n", "return known.clone()\n",
             ("training/data/test_data.py::test_a_run_holds_its_train_images_once",)),
    Mutation("GPU 13: a lost GPU is used again", "harness/sweep/sweep.py", "not ended_well and is_lost()", "False",
             ("sweep/test_sweeps.py::test_a_lost_gpu_takes_no_other_run_with_it",)),
    Mutation("GPU 13: two cores for a GPU", "slurm/hydra/launcher/gpu.yaml", "cpus_per_task: 8", "cpus_per_task: 2",
             SLOTS),
]  # fmt: skip
