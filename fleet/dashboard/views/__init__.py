"""View models: what each page shows, made from what the store returned, without framework, clock or I/O."""
