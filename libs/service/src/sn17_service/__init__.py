"""What every sn17 pod needs once: settings, logs, health, drain, metrics, memory."""
