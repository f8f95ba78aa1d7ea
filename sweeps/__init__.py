"""Named studies: Hydra presets, one YAML each."""
