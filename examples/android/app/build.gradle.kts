import groovy.json.JsonSlurper
import java.security.MessageDigest
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "com.example.student"
    compileSdk = 36
    defaultConfig {
        applicationId = "com.example.student"
        minSdk = 28
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_17 }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:1.4.2")
}

// The class Model is the code in model.json, which knows the file's size, pixels and formats.
val modelCode by tasks.registering {
    val model = file("src/main/assets/student.tflite")
    val description = file("src/main/assets/model.json")
    val code = file("build/generated/model/Model.kt")
    inputs.files(model, description)
    outputs.file(code)
    doLast {
        val told = JsonSlurper().parse(description) as Map<*, *>
        val digest = MessageDigest.getInstance("SHA-256").digest(model.readBytes())
        val sha256 = digest.joinToString("") { "%02x".format(it) }
        if ((told["file"] as Map<*, *>)["sha256"] != sha256) {
            throw GradleException("student.tflite is not the file that model.json was written for")
        }
        val snippets = told["snippets"] as Map<*, *>?
            ?: throw GradleException("model.json has no code: export with --pixel_range, batch 1")
        code.writeText("package com.example.student\n\n${snippets["kotlin"]}")
    }
}
android.sourceSets["main"].java.srcDir("build/generated/model")
tasks.named("preBuild") { dependsOn(modelCode) }
