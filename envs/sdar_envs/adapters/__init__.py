"""Our environments under other projects' interfaces; each adapter is a module with an extra of its own."""
