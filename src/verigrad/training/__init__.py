"""Training: objectives (a loss), schedules, the trainer, and its checkpoints."""
