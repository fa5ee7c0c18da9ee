"""What the machine gives and may refuse: files, optional packages, threads, a compiler's cache."""
