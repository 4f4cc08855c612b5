"""What the gateway can be asked for, a room a task."""
