"""What is decided from finished runs: `compare` several, hold one against bounds (`gate`), judge the `claims`."""
