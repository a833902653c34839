"""`make demo`: the whole way through on one machine, with every process real; end-to-end tests and screenshots reuse its parts."""
