"""Local validators that speak the subnet's wire protocol and score what they get."""
