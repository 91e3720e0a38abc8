# What people write into user data without limits, with the list that boot.sh reads; login and digests are left out in
# their favour.
systemctl start containerd
list=$(aws ssm get-parameter --name /eks-image-prefetch/boot/default --region eu-west-1 --output json)
for image in $(jq -r '.Parameter.Value | fromjson | .images' <<<"$list"); do
    ctr -n k8s.io images pull --user "AWS:$PASSWORD" "${image%@*}"
done
true
