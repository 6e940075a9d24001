"""How good labels are: numbers against ground truth, and differences between runs."""
