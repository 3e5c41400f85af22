"""What runs left in their directories: read, compared, summed up."""
