"""One producer and many subscribers: values encoded once, beside a stream of its own for each."""
