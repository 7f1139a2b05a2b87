"""The run's numbers, and how Prometheus reads them."""
