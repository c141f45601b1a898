"""An example application on Async Jobs: mail, labels, traffic and everything to deploy it."""
