"""Arrays in, arrays out: losses with gradients, the tie rule, calibration, resampling, solvers."""
