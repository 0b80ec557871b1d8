"""Training runs: settings, training, folders, and hashes of their inputs."""
