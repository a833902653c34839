"""From a trained network to the formats engines open; one module per format."""
