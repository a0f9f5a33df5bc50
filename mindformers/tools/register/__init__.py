"""Registry and configuration."""
