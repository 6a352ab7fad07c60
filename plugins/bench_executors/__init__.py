"""Places to do runs beside this machine: clusters. Their libraries are imported when one is used."""
