"""The dashboard: pages around slack, for whoever is asked at three in the morning."""
