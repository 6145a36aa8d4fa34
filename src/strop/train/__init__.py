"""One learner, one loop, and what they keep on disk: optimizers, checkpoints, metrics, reference log-probs."""
