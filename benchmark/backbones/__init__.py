"""Shared services for methods: pretrained backbones, prompted forward passes, prompt pools, heads."""
