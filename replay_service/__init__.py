"""The replay service: stores, sampling, rate limiting and the wire codec. Imports `common` alone."""
