"""What holds for every test: property tests judge values, not the speed of a shared machine."""

from hypothesis import HealthCheck, settings

settings.register_profile("edgewright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgewright")
