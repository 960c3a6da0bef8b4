"""Pictures, one function each, drawn from numbers this package computed."""
