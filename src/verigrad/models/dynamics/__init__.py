"""What a solve really does: the trajectory, its Jacobians, exponents and errors, measured instead of believed."""
