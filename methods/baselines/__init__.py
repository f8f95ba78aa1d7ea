"""The field's baselines, on the same interface as the variants; `method=baselines` is all of them."""
