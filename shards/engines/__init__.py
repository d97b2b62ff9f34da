"""A build by many: its three steps, Ray, Slurm."""
