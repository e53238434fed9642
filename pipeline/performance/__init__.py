"""What a step costs: planned for machines that aren't there, measured here, beside others."""
