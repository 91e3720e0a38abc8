# The two lines that people send to their nodes today, for each repository:
#
#   tag=$(aws ecr describe-images --repository-name app | jq -r '.imageDetails | max_by(.imagePushedAt) | .imageTags[0]')
#   ctr -n k8s.io images pull --user "AWS:$(aws ecr get-login-password)" "$registry/app:$tag"
#
# What `aws` would answer is given here, in their favour: the references and the password.
set -e
for image in $IMAGES; do
    ctr -n k8s.io images pull --user "AWS:$PASSWORD" "$image"
done
