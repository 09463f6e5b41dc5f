"""The consensus pipeline: expand an idea, have five personas review it, decide."""
