"""Says whether a claimed robust accuracy holds: health, interventions, escalation, and a verdict by stated rules."""
