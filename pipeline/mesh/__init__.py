"""Where arrays lie on the devices, and how they are added up."""
