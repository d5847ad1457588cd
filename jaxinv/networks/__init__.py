"""Networks that evaluate pictures: shapes and pure functions. jaxinv/weights loads weights."""
