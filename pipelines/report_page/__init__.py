"""The page of `faultline report`: its numbers, pictures, examples and how they are put together."""
