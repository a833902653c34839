"""The service side: releases, devices, staged rollouts and what the fleet reports back."""
