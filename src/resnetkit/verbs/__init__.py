"""The verbs: glue, nothing else."""
