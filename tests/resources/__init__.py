"""What happens when something runs out: disk, descriptors, permission, time that jumps; and what much of it costs."""
