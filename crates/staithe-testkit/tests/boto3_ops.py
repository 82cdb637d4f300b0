"""Drives an S3 server through boto3 and prints what it answers, as JSON.

`boto3_ops.py compare` prints [[name, answer], ...] for a fixed list of operations, with all that must differ
between two servers (ids, dates, hosts) made equal. `boto3_ops.py code BUCKET` prints the error code of one listing.
The server and the credentials come from the AWS variables.
"""

import base64
import hashlib
import json
import sys
import zlib

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PART = 5 << 20
# Ids that a server makes up: told apart by the order in which they appear.
IDS = {"VersionId", "UploadId", "VersionIdMarker", "NextVersionIdMarker", "UploadIdMarker", "NextUploadIdMarker",
       "CopySourceVersionId", "DeleteMarkerVersionId"}
# What one server says and another need not.
NOISE = {"LastModified", "Initiated", "Owner", "Initiator", "ServerSideEncryption", "Location", "RequestCharged",
         "ResponseMetadata", "ContinuationToken", "NextContinuationToken", "AbortDate", "AbortRuleId", "CreationDate",
         "ChecksumAlgorithm", "ChecksumType", "AcceptRanges", "BucketRegion", "BucketArn", "MFADelete", "TagCount",
         "ChecksumCRC32", "ChecksumCRC64NVME", "AccessPointAlias", "Size", "EncodingType", "RestoreStatus",
         "MissingMeta", "PartsCount", "Expires", "StorageClass"}


class Run:
    def __init__(self, client):
        self.s3 = client
        self.answers = []
        self.ids = {}

    def plain(self, value, name=None):
        if isinstance(value, dict):
            kept = {k: self.plain(v, k) for k, v in value.items() if k not in NOISE or (k == "Size" and "Key" in value)}
            return {k: v for k, v in sorted(kept.items()) if v not in (None, "", [], {})}
        if isinstance(value, list):
            return [self.plain(v) for v in value]
        if name in IDS and value not in ("", "null", None):
            return self.ids.setdefault(value, f"id{len(self.ids) + 1}")
        if hasattr(value, "read"):
            body = value.read()
            return body.decode() if len(body) < 100 else hashlib.md5(body).hexdigest()
        return value

    def do(self, name, operation, **arguments):
        """Runs one operation, notes its answer, and returns it raw; None for an error."""
        try:
            raw = getattr(self.s3, operation)(**arguments)
            status = raw["ResponseMetadata"]["HTTPStatusCode"]
            answer = self.plain(raw)
            if answer.get("VersionId") == "null":
                del answer["VersionId"]
            answer.get("Buckets", []).sort(key=lambda bucket: bucket["Name"])
        except ClientError as error:
            raw = None
            print(f"{name}: {error}", file=sys.stderr)
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            answer = {"Error": error.response["Error"]["Code"]}
        self.answers.append([name, {"Status": status, **answer}])
        return raw


def buckets(run):
    run.do("create bucket", "create_bucket", Bucket="made")
    run.do("head bucket", "head_bucket", Bucket="made")
    run.do("head missing bucket", "head_bucket", Bucket="missing")
    run.do("location", "get_bucket_location", Bucket="made")
    run.do("versioning off", "get_bucket_versioning", Bucket="made")
    run.do("list buckets", "list_buckets")
    run.do("put for delete", "put_object", Bucket="made", Key="k", Body=b"x")
    run.do("delete full bucket", "delete_bucket", Bucket="made")
    run.do("delete for delete", "delete_object", Bucket="made", Key="k")
    run.do("delete bucket", "delete_bucket", Bucket="made")
    run.do("delete missing bucket", "delete_bucket", Bucket="made")
    run.do("list missing bucket", "list_objects_v2", Bucket="missing")
    run.do("put to missing bucket", "put_object", Bucket="missing", Key="k", Body=b"x")


def puts(run):
    b = {"Bucket": "plain"}
    first = run.do("put", "put_object", **b, Key="k", Body=b"first", ContentType="text/plain",
                   Metadata={"mode": "33188", "uid": "1000"})
    run.do("put empty", "put_object", **b, Key="empty", Body=b"")
    run.do("put if absent, present", "put_object", **b, Key="k", Body=b"x", IfNoneMatch="*")
    run.do("put if absent, absent", "put_object", **b, Key="new", Body=b"x", IfNoneMatch="*")
    run.do("put if match, matching", "put_object", **b, Key="k", Body=b"second", IfMatch=first["ETag"],
           Metadata={"mode": "33188"})
    run.do("put if match, stale", "put_object", **b, Key="k", Body=b"third", IfMatch=first["ETag"])
    run.do("put if match, missing", "put_object", **b, Key="nothing", Body=b"x", IfMatch=first["ETag"])
    run.do("put with md5", "put_object", **b, Key="md5", Body=b"x",
           ContentMD5=base64.b64encode(hashlib.md5(b"x").digest()).decode())
    run.do("put with wrong md5", "put_object", **b, Key="md5", Body=b"x",
           ContentMD5=base64.b64encode(hashlib.md5(b"y").digest()).decode())
    run.do("put with sha256", "put_object", **b, Key="sha", Body=b"x", ChecksumAlgorithm="SHA256")
    crc = base64.b64encode(zlib.crc32(b"y").to_bytes(4, "big")).decode()
    run.do("put with wrong crc32", "put_object", **b, Key="crc", Body=b"x", ChecksumCRC32=crc)
    run.do("put odd key", "put_object", **b, Key="odd/ü +&<>'\"%?#/a//b", Body=b"odd")
    run.do("put long key", "put_object", **b, Key="l" * 1025, Body=b"x")
    run.do("put marker", "put_object", **b, Key="dir/", Body=b"", ContentType="application/x-directory")


def gets(run):
    b = {"Bucket": "plain"}
    tag = run.do("head", "head_object", **b, Key="k")["ETag"]
    run.do("head missing", "head_object", **b, Key="nothing")
    run.do("head empty", "head_object", **b, Key="empty")
    run.do("get", "get_object", **b, Key="k")
    run.do("get odd key", "get_object", **b, Key="odd/ü +&<>'\"%?#/a//b")
    run.do("get missing", "get_object", **b, Key="nothing")
    for text in ["0-0", "2-", "-3", "1-3", "4-100", "6-", "100-200"]:
        run.do(f"get range {text}", "get_object", **b, Key="k", Range=f"bytes={text}")
    run.do("get range of empty", "get_object", **b, Key="empty", Range="bytes=0-0")
    run.do("get if match, matching", "get_object", **b, Key="k", IfMatch=tag)
    run.do("get if match, other", "get_object", **b, Key="k", IfMatch='"0123"')
    run.do("get if none match, matching", "get_object", **b, Key="k", IfNoneMatch=tag)
    run.do("get if none match, other", "get_object", **b, Key="k", IfNoneMatch='"0123"')
    run.do("head if match, other", "head_object", **b, Key="k", IfMatch='"0123"')
    run.do("get range if match", "get_object", **b, Key="k", IfMatch=tag, Range="bytes=1-2")


def lists(run):
    b = {"Bucket": "listed"}
    for key in ["a", "a/1", "a/2", "a/b/1", "b/1", "c", "d e/1", "é"]:
        run.s3.put_object(**b, Key=key, Body=key.encode())
    run.do("list", "list_objects_v2", **b)
    run.do("list delimited", "list_objects_v2", **b, Delimiter="/")
    run.do("list prefix", "list_objects_v2", **b, Prefix="a/", Delimiter="/")
    run.do("list start after", "list_objects_v2", **b, StartAfter="a/2")
    run.do("list nothing", "list_objects_v2", **b, Prefix="zzz")
    run.do("list url", "list_objects_v2", **b, EncodingType="url")
    run.do("list old", "list_objects", **b)
    run.do("list old marker", "list_objects", **b, Marker="a/2")
    run.do("list old delimited", "list_objects", **b, Delimiter="/")
    for delimiter in [{}, {"Delimiter": "/"}]:
        token, page = {}, 0
        while True:
            answer = run.do(f"list page {page} {delimiter}", "list_objects_v2", **b, MaxKeys=2, **delimiter, **token)
            if not answer["IsTruncated"]:
                break
            token, page = {"ContinuationToken": answer["NextContinuationToken"]}, page + 1


def copies(run):
    b = {"Bucket": "plain"}
    tag = run.s3.head_object(**b, Key="k")["ETag"]
    source = {"Bucket": "plain", "Key": "k"}
    run.do("copy", "copy_object", **b, Key="copy", CopySource=source)
    run.do("head copy", "head_object", **b, Key="copy")
    run.do("copy replacing", "copy_object", **b, Key="copy2", CopySource=source, MetadataDirective="REPLACE",
           Metadata={"mode": "1"}, ContentType="text/x")
    run.do("head replaced", "head_object", **b, Key="copy2")
    run.do("copy onto itself", "copy_object", **b, Key="k", CopySource=source)
    run.do("copy onto itself replacing", "copy_object", **b, Key="copy2", MetadataDirective="REPLACE",
           CopySource={"Bucket": "plain", "Key": "copy2"}, Metadata={"mode": "2"})
    run.do("copy if match", "copy_object", **b, Key="copy3", CopySource=source, CopySourceIfMatch=tag)
    run.do("copy if match, other", "copy_object", **b, Key="copy3", CopySource=source, CopySourceIfMatch='"0123"')
    run.do("copy missing", "copy_object", **b, Key="copy4", CopySource={"Bucket": "plain", "Key": "nothing"})
    run.do("copy from another bucket", "copy_object", **b, Key="copy5", CopySource={"Bucket": "listed", "Key": "é"})
    run.do("get copy from another bucket", "get_object", **b, Key="copy5")


def multiparts(run):
    k = {"Bucket": "plain", "Key": "parts"}
    whole = bytes(range(256)) * (PART // 256)
    run.s3.put_object(Bucket="plain", Key="source", Body=whole + b"tail")
    upload = run.do("create multipart", "create_multipart_upload", **k, Metadata={"mode": "33188"}, ContentType="video/x")
    u = {"UploadId": upload["UploadId"]}
    one = run.do("upload part", "upload_part", **k, **u, PartNumber=1, Body=whole)
    two = run.do("copy part", "upload_part_copy", **k, **u, PartNumber=3, CopySource="plain/source",
                 CopySourceRange=f"bytes=0-{PART - 1}")["CopyPartResult"]
    end = run.do("upload last part", "upload_part", **k, **u, PartNumber=7, Body=b"end")
    run.do("list parts", "list_parts", **k, **u)
    run.do("list parts after", "list_parts", **k, **u, PartNumberMarker=1, MaxParts=1)
    run.do("list uploads", "list_multipart_uploads", Bucket="plain")
    parts = {"Parts": [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 3, "ETag": two["ETag"]},
                       {"PartNumber": 7, "ETag": end["ETag"]}]}
    run.do("complete", "complete_multipart_upload", **k, **u, MultipartUpload=parts)
    run.do("complete again", "complete_multipart_upload", **k, **u, MultipartUpload=parts)
    run.do("head parts", "head_object", **k)
    run.do("get parts", "get_object", **k)
    run.do("get range over parts", "get_object", **k, Range=f"bytes={PART - 2}-{2 * PART + 1}")
    upload = run.s3.create_multipart_upload(**k)
    u = {"UploadId": upload["UploadId"]}
    part = run.s3.upload_part(**k, **u, PartNumber=1, Body=b"small")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    run.do("complete if absent, present", "complete_multipart_upload", **k, **u, MultipartUpload=parts, IfNoneMatch="*")
    run.do("abort", "abort_multipart_upload", **k, **u)
    run.do("abort again", "abort_multipart_upload", **k, **u)
    run.do("upload part, no upload", "upload_part", **k, UploadId="nothing", PartNumber=1, Body=b"x")
    run.do("list uploads after", "list_multipart_uploads", Bucket="plain")


def wrong_multiparts(run):
    """Each on an upload of its own: a server that takes one must not be judged by the others."""
    k = {"Bucket": "plain", "Key": "wrong"}
    wrong = {"wrong order": [2, 1], "wrong tag": [1, 3], "too small": [1, 2], "missing part": [1, 4], "no parts": []}
    for name, numbers in wrong.items():
        u = {"UploadId": run.s3.create_multipart_upload(**k)["UploadId"]}
        tags = {n: run.s3.upload_part(**k, **u, PartNumber=n, Body=b"%d" % n)["ETag"] for n in [1, 2, 3]}
        if name == "wrong tag":
            tags[3] = tags[1]
        parts = [{"PartNumber": n, "ETag": tags.get(n, tags[1])} for n in numbers]
        run.do(f"complete, {name}", "complete_multipart_upload", **k, **u, MultipartUpload={"Parts": parts})
    u = {"UploadId": run.s3.create_multipart_upload(**k)["UploadId"]}
    run.do("copy part beyond", "upload_part_copy", **k, **u, PartNumber=8, CopySource="plain/source",
           CopySourceRange=f"bytes=0-{PART + 100}")
    run.do("copy part of missing", "upload_part_copy", **k, **u, PartNumber=8, CopySource="plain/nothing")


def versions(run):
    b = {"Bucket": "versioned"}
    run.do("create for versions", "create_bucket", **b)
    run.do("versioning on", "put_bucket_versioning", **b, VersioningConfiguration={"Status": "Enabled"})
    run.do("versioning", "get_bucket_versioning", **b)
    old = run.do("put version 1", "put_object", **b, Key="k", Body=b"1")["VersionId"]
    run.do("put version 2", "put_object", **b, Key="k", Body=b"2")
    run.do("put another", "put_object", **b, Key="l", Body=b"l")
    run.do("get latest", "get_object", **b, Key="k")
    run.do("get old", "get_object", **b, Key="k", VersionId=old)
    run.do("head old", "head_object", **b, Key="k", VersionId=old)
    run.do("copy old", "copy_object", **b, Key="m", CopySource={"Bucket": "versioned", "Key": "k", "VersionId": old})
    marker = run.do("delete latest", "delete_object", **b, Key="k")["VersionId"]
    run.do("get deleted", "get_object", **b, Key="k")
    run.do("head deleted", "head_object", **b, Key="k")
    run.do("get old of deleted", "get_object", **b, Key="k", VersionId=old)
    run.do("get marker", "get_object", **b, Key="k", VersionId=marker)
    run.do("list hides deleted", "list_objects_v2", **b)
    run.do("list versions", "list_object_versions", **b)
    run.do("list versions, prefix", "list_object_versions", **b, Prefix="l")
    run.do("delete marker", "delete_object", **b, Key="k", VersionId=marker)
    run.do("get again", "get_object", **b, Key="k")
    run.do("delete old", "delete_object", **b, Key="k", VersionId=old)
    run.do("get removed version", "get_object", **b, Key="k", VersionId=old)
    seen, token = [], {}
    while True:
        page = run.s3.list_object_versions(**b, MaxKeys=1, **token)
        seen += [v["Key"] for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        if not page["IsTruncated"]:
            break
        token = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
    run.answers.append(["versions page by page", seen])
    run.do("list versions of unversioned", "list_object_versions", Bucket="listed", Prefix="a/")


def deletes(run):
    b = {"Bucket": "plain"}
    run.do("delete", "delete_object", **b, Key="copy")
    run.do("delete missing", "delete_object", **b, Key="copy")
    run.do("delete if match, other", "delete_object", **b, Key="k", IfMatch='"0123"')
    run.do("get after failed delete", "head_object", **b, Key="k")
    tag = run.s3.head_object(**b, Key="k")["ETag"]
    run.do("delete if match", "delete_object", **b, Key="k", IfMatch=tag)
    run.do("get after delete", "head_object", **b, Key="k")
    run.do("delete batch", "delete_objects", **b, Delete={"Objects": [{"Key": "copy2"}, {"Key": "nothing"}]})
    run.do("delete batch, quiet", "delete_objects", **b, Delete={"Objects": [{"Key": "copy3"}], "Quiet": True})
    run.do("delete batch, versioned", "delete_objects", Bucket="versioned", Delete={"Objects": [{"Key": "l"}]})


def main():
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=10, read_timeout=60)
    client = boto3.client("s3", config=config)
    if sys.argv[1] == "code":
        run = Run(client)
        run.do("list", "list_objects_v2", Bucket=sys.argv[2])
        run.do("put", "put_object", Bucket=sys.argv[2], Key="k", Body=b"x")
        print(json.dumps([answer.get("Error", "") for _, answer in run.answers]))
        return
    run = Run(client)
    for name in ["plain", "listed"]:
        client.create_bucket(Bucket=name)
    for family in [buckets, puts, gets, lists, copies, multiparts, wrong_multiparts, versions, deletes]:
        family(run)
    print(json.dumps(run.answers))


main()
