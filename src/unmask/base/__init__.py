"""What everybody speaks: types, noise, numbers, records on disk, progress, devices."""
