"""What differs per driver: how to connect, what its errors mean, which of its methods reach the network."""
