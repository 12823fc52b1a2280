"""The doctor: compares a robot with a checkpoint before anything moves."""
