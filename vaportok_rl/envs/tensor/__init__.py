"""The environment as pure functions on tensors, and its faces."""
