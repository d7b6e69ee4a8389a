"""Modal's control plane without Modal: the real client talks to it, and it starts the real container runtime."""
