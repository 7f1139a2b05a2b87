"""What every room shares: configuration, sequence types, run folder, seeding."""
