"""Networks: what each one is called, asks and allows (configs, no torch), and how it is built (build)."""
