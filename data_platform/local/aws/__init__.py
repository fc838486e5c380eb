"""The `aws` engine of the embedded cloud: S3, EventBridge, SQS and the smaller services the platform calls.

moto answers; the modules beside this one make it durable, faithful and breakable where the platform depends on it.
"""

from data_platform.local.aws.server import AwsEngine

ENGINE = AwsEngine

__all__ = ["ENGINE", "AwsEngine"]
