"""Built-in scenarios of adaptbench, one file each; they register through entry points."""
