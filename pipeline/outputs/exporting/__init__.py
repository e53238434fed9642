"""A trained model as a folder that needs neither this package nor the run; see `folder`."""
